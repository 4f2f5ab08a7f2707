"""`python -m trio_gateway` is the command `trio-gateway`."""

from trio_gateway.main import main

if __name__ == "__main__":
    main()
