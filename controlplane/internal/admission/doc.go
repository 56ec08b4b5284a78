// Package admission says to whoever writes an object what of it will not take effect,
// by a validating webhook that only warns: what can never be right is for CEL to deny,
// and an API server that reaches no replica takes the object as it is.
// Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
package admission
