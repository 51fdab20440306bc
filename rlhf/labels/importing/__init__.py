"""A file of preferences comes into the database, and the report of what it held."""
