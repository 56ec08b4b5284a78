// Package law holds the tree to the rules that a compiler does not know: who
// imports whom, what a pure package may touch, what no file may contain, and that
// what the pages tell a reader to type exists.
//
// Each rule carries its reason. It reads the source and asks `go list`; what the
// code does when it runs is for the other tests.
package law
