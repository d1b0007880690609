"""x"""
def show(log, names, draws): return 0
