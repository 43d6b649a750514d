"""The operator: from policies and VirtualMachineInstances to one PeaceList per node, and back."""
