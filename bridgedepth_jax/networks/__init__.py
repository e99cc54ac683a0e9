"""Networks and parts that two systems or more use."""
