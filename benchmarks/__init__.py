"""How fast Yozh is, beside other libraries on the same machine: `make bench`, or `python -m benchmarks NAME ...`."""
