// Package chart loads the Helm chart that the program carries and renders it.
//
//	manifests ── Load ──▶ chart, with version ── Render(values) ──▶ text of all objects
//
// Values are checked against the chart's schema. Applying is the affair of
// internal/cli/install.
package chart
