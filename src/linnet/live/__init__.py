"""Live sound: microphone, loudspeaker and files in real time, over UDP or back to where it came from."""
