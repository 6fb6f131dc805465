// Package otatest holds what it takes to test code against package ota
// without a device: conformance suites that a backend or a source has to pass
// ([TestBackend], [TestSource]), a hostile repository that plays every attack
// on a source ([TestHostile]) and its parts ([TUFRepo], [TUFServer]), and a
// simulated [Device] whose power can be cut at every step that a disk would
// remember.
//
// It uses the standard testing package alone.
package otatest
