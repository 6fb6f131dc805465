//go:build !linux

package durable

func allPrimitives() []primitive { return primitives }
