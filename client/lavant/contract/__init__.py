"""Rules of the contract that client and server check alike: what one lets through, the other takes."""
