// Package lavant is a client of lavant, which stores what agents and evaluations do, event by event, and streams it over
// gRPC: nothing missed, repeated or invented.
//
// A Client has the calls about runs. Runs.Start publishes a run, exactly once whatever connection or server dies in
// between; Runs.Read and Runs.Stream read one, and continue after cuts with the next event. Messages of the contract, such
// as Event, are those of package lavantpb; docs/protocol.md of the repository describes what the client does over time.
package lavant
