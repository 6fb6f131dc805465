// Package deptest holds the rules of this repository as tests: who may import
// whom, where durable calls may stand, one package comment per package, and the
// limits of style. It has no code of its own.
package deptest
