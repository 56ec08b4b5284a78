// Package cli is the ambit command. Exit codes: 0 it worked, 1 it failed, 2 it was
// called wrongly, 3 what was looked at is not well, 4 what was waited for did not
// come in time, 5 the cluster cannot be reached; ambit local exec gives that of the
// program it ran.
package cli
