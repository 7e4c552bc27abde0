"""The benchmark's figures are right, and its programs produce them. Nothing here judges how fast anything is."""
