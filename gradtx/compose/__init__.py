"""How do I write and combine transformations? The builders of rules, `chain`, `masked`,
`descend`.
"""
