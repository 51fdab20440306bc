"""The label page: FastAPI and server-rendered templates. Only `rlhf labels serve` imports this package."""
