"""Who gets the candidate: the flag, the bucket, the gate. Depends on nothing else of this project."""
