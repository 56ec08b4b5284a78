// Package cli is the ambit command, and of it what local meshes and clusters have in
// common and what local meshes need: package cluster has the rest, so that a program
// for local meshes alone is a small one. Exit codes: 0 it worked, 1 it failed, 2 it was
// called wrongly, 3 what was looked at is not well, 4 what was waited for did not
// come in time, 5 the cluster cannot be reached; ambit local exec gives that of the
// program it ran.
package cli
