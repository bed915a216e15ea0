"""What is written about tetrad by machine: manual pages, shell completions, the JSON Schema.

All of it is made from the command line's parser and the configuration's types, so that it cannot
tell of an option or a key that is not there. `python -m tetrad.paper etc` writes the files.
"""
