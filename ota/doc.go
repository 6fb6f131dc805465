// Package ota moves a device from one signed release to the next as one
// transaction over all of its components, and back again when the new release
// does not prove itself.
package ota
