"""What `edge-slm doctor` looks at: the machine, what is installed on it, and what it has to reach."""
