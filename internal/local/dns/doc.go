// Package dns answers for the names of Services and their endpoints, as the
// Kubernetes DNS specification 1.1.0 describes them. There is no way out of a
// local mesh, so names of other zones are refused.
package dns
