"""Human preferences: reading files of them, keeping, joining and exporting them, and numbers that say whether they can
be trusted. Import the modules: `rlhf --help` loads this package, and no library should come with it.
"""
