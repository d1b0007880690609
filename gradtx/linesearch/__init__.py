"""How far to go along a direction: line searches, which evaluate the loss."""
