// Package netnstest gives tests network namespaces of their own, and wires them
// together. Everything vanishes with the test: nothing has a path or a name
// outside.
package netnstest
