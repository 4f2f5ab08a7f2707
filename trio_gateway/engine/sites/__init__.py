"""Which of several URLs gets a request: what is known of each, and the decision. Pure."""
