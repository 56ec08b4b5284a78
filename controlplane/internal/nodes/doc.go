// Package nodes knows which node, or which waypoint, a caller of the control
// plane is, and takes in what node agents report.
//
// A caller sends `authorization: Bearer <token>` (and may send `clusterid`); the
// token's SHA-256 in the credentials file proves one node, or one pod on it. On
// Kubernetes the token is that of a ServiceAccount, bound to a pod and made for
// Audience: the API server's TokenReview says which pod, and the control plane's
// own knowledge of that very pod says what it may speak for. The
// interceptors put the caller in the call's context, end the streams of a
// credential that is withdrawn, and let nobody else pass.
//
// What a caller may have because of that is decided by packages ca and xds.
package nodes
