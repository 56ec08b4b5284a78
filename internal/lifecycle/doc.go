// Package lifecycle starts and stops what a component consists of. Everything
// that runs is a Runner: one method that blocks until its context ends. A Group
// starts runners in order and stops them in reverse; Readiness names what is
// still pending.
package lifecycle
