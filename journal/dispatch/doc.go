// Package dispatch makes a gRPC connection to one broker reach all of them: each call goes to the broker that its context names
// (protocol.WithDispatchRoute and its like).
//
//	target, opts, err := dispatch.Target("https://broker.example:8080", "us-east1-b", nil)
//	conn, err := grpc.NewClient(target, opts...)
//
// client.Dial does that. Calls whose context names no broker go to the address that was dialed.
//
// Of the brokers that may serve a call, those whose connection works come first; of these the ones in the own zone, then
// those that are connected already. A broker that cannot be reached makes the call fail with the code Unavailable, unless the
// call waits for a connection (grpc.WaitForReady), and its route is forgotten, so that the next attempt asks the dialed
// address. Connections are opened when they are first needed, and closed when nobody used them for half a minute.
//
// Whether a connection is encrypted is said by the scheme of the broker's endpoint.
package dispatch
