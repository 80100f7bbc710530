"""The contract of the wire for other programs: JSON Schemas, and the script that makes two of them."""
