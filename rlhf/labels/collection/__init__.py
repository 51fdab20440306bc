"""People label: tasks, the queue, what they answer, and what an owner watches."""
