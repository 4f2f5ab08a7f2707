"""Tests of `trio_gateway.service`."""
