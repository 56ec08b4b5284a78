// Package process starts programs in the namespaces of pods and nodes, and
// reaps every child of the sandbox's pid 1.
//
// A program is started through a helper: the running binary executed again,
// which joins the namespaces in one thread, changes directory and user, and
// then becomes the program. The helper reports why it could not over a pipe
// that closes when it could. A main function that may be used to run a sandbox
// calls IsHelper before anything else.
//
// What runs, when, and how often it is restarted is decided elsewhere.
package process
