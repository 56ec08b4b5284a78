// Package identity holds who a workload is: the SPIFFE ID of the form
// spiffe://<trust domain>/ns/<namespace>/sa/<service account>, the key and
// certificate that prove it, the roots that a peer is checked against, and the
// TLS configurations that do the checking.
//
// It does not fetch certificates and it does not decide what an identity may
// do; see internal/certs and internal/authz.
package identity
