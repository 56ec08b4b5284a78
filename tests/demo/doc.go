// Command demo runs the shop in a local mesh and shows, step by step and with
// evidence from the wire, what enrolling it does. Its last output is a table of
// what was proved; its exit code is 0 only if all of it was.
//
// It also is its own helper inside the local mesh: "demo sniff" captures on the
// link between the nodes and "demo netstate" writes down network namespaces.
package main
