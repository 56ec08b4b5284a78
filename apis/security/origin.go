package security

// OriginExtension is the name of the extension that carries an Origin.
const OriginExtension = "ambit-mesh.io/origin"
