"""Training: the only loop, the batches it takes, the teacher's features it keeps, and the state it goes on from."""
