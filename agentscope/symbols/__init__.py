"""Addresses to names, from files alone: ELF symbols, stacks, the package behind a file, system calls and signals.

Every file read here may have been written by the process that is being examined, so each reader is bounded in time and in
memory and answers with a value that says what is wrong; none of them raises on what a file contains.
"""
