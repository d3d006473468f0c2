// Package logpb is the messages of the log data model: descriptors, log entries, and the bundles that carry them. The code is
// generated from proto/logpb and wire-compatible with LogDog; what was added has field numbers from 1000.
//
// Messages from outside are not necessarily valid. ValidateDescriptor and ValidateEntry hold the rules. Messages may be read
// concurrently as long as nobody changes them.
package logpb
