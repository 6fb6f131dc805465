// Package compose holds the app document: what the index of a component of kind
// "compose" is. A publisher turns a compose file into an [App] once; a device
// runs the App with what its engine offers and has no choice left to make.
//
// Everything in it is resolved: sizes are bytes, times are nanoseconds, a range
// of ports is a list of ports, profiles and variables of the publisher are
// gone, every volume and network has the name that it has at the engine, and
// the services stand in the order in which they start. What only the device
// knows is left as a placeholder in a few fields; [Service.Expand] puts it in.
//
// An app has exactly one document, which [App.Encode] writes and [Parse] insists
// on. Lists in which the order says nothing are sorted.
package compose
