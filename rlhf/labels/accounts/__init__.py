"""Who may use the label page: accounts, links, passwords, sessions."""
