// Package protocol is the vocabulary of journals: the messages and the service of the Journal protocol, what makes each of
// them valid, and the small languages that go with them: label sets and selectors, names of fragments, URLs of stores and
// endpoints.
//
// The generated code is wire-compatible with Gazette brokers and clients. Beside it this package offers
//
//   - Validate methods for every message. A message is validated by its receiver, before it is used. Sub-messages that are
//     absent on the wire are as good as empty ones, so every method is safe to call on nil.
//   - Journal and Offset, the two quantities that must not be mixed up with other strings and numbers. The generated messages
//     carry them as string and int64.
//   - LabelSet operations and LabelSelector matching, parsing and formatting.
//   - The name of a fragment in a store, and back.
//   - RoutedJournalClient: a client that knows, or learns, which broker serves a journal.
//
// A failed validation is a *ValidationError, which says where in the message and why, and which counts as fault.Invalid.
//
// Functions and methods that read are safe for concurrent use; those that modify a LabelSet are not.
package protocol
