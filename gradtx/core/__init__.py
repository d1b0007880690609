"""The contract: definitions, rules, the lifter, and how they compose."""
