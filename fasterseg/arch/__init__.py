"""What a network *is*: operators, genotype, plan, price. Standard library only."""
