// Package cli is the ambit command. Exit codes: 0 it worked, 1 it failed, 2 it
// was called wrongly; ambit local exec gives that of the program it ran.
package cli
