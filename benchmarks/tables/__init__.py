"""What is compared with what: for every table its environments, its methods and the steps of each."""
