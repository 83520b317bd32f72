/**
 * Client of lavant, which stores what agents and evaluations do, event by event, and streams it over gRPC: nothing missed,
 * repeated or invented.
 *
 * <p>A {@link dev.lavant.client.Client} has the calls about runs. {@link dev.lavant.client.Runs#start Runs.start} publishes a
 * run, exactly once whatever connection or server dies in between; {@link dev.lavant.client.Runs#read Runs.read} reads one, and
 * continues after cuts with the next event. Messages of the contract, such as {@code Event}, are those of package
 * {@code dev.lavant.v1}; {@code docs/protocol.md} of the repository describes what the client does over time.
 */
package dev.lavant.client;
