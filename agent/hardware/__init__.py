"""What machine this is, as its files tell, and which execution provider that makes the best one."""
