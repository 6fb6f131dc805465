//go:build !containers

package main

import "errors"

// withContainers says whether the agent knows the kind "compose": with go build
// -tags containers, for a few megabytes more.
const withContainers = false

func (*agent) newApp(string, component) (app, error) {
	return nil, errors.New("the agent was built without containers")
}

// appKinds are the kinds of error that apps bring along.
func appKinds() []kind { return nil }
