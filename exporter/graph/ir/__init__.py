"""The graph of one traced component: nodes, lazy weights, operators, editing."""
