// Package control is how commands outside of a sandbox talk to the supervisor
// inside: one request a connection over a unix socket in the state directory,
// in lines of JSON.
//
//	─▶ {"op": ..., "args": ...}        with files attached, for exec
//	◀─ {"data": ...}*                  answers, events or flows
//	─▶ {"signal": n}*                  exec only
//	◀─ {"error": ...} or {"exit": n} or the end of the stream
//
// Only processes of the user that runs the sandbox are answered.
package control
